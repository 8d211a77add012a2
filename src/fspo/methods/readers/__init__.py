"""One file for each reader; the file's name, with hyphens, is the method's. See `fspo.methods.reader`."""
