"""Making OpenNebula know onelun: the few lines of oned.conf and vmm_execrc, and what is installed under remotes."""
