"""Losses: functions of arrays, never of models; each gives one number per image, [b]."""
