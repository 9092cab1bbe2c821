"""Pages for browsers: `comparison` shows the cells of a comparison side by side. HTML files are package data."""
