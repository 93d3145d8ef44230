"""The kernel's side: netlink, namespaces, sysctls, locks. Knows nothing of pods, pools and CNI."""
