"""Generated files for the import of recipients and for audiences, and what must be true of each."""
