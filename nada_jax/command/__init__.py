"""The command line: what is wrong with it, in a sentence, and standard output and error."""
