"""Measuring an adapted generator against its source.

`generators` finds and loads the two, `features` has the networks that embed and compare their images, `observations`
applies them, `statistics` has estimators with bootstrap intervals, `comparisons` the table of metrics, and `sheets`
lays out images to be viewed.
"""
