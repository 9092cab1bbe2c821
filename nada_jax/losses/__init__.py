"""Losses: functions of arrays, never of models. Each returns one number per image, [b]."""
