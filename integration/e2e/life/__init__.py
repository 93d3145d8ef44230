"""What happens to azvnet and its nodes in time: installed, upgraded, killed, rebooted, taken away."""
