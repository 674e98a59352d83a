"""The numbers of several processes, read as one."""
