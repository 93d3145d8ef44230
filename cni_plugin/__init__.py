"""The executable: entry, CNI contract, verbs, datapath, agent, command line."""

__version__ = "0.1.0"
