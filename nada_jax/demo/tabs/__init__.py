"""The tabs of the page, one module each: build(site) puts its controls where it is called."""
