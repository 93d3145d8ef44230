"""A real kind cluster with azvnet as its CNI plugin, where there is neither Docker nor a registry, too."""
