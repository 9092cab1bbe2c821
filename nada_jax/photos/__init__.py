"""Photographs of people: faces found, cut out as FFHQ's are, and put back."""
