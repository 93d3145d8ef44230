"""End-to-end tests of nodes, pods and services with addresses of both families."""
