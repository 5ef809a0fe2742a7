"""A closed set of real transformations of starter-like scripts: the scripted coder's whole repertoire."""
