"""The numbers of several processes, collected as those of one."""
