"""Who sees what of a packet: every kind of far end, from every kind of sender, measured with real packets."""
