"""What an attachment is in the kernel: names, making it, and how it differs from its plan."""
