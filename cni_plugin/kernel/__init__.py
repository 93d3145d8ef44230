"""The kernel's side: netlink, namespaces, sysctls, locks. It must not know pods, pools and CNI."""
