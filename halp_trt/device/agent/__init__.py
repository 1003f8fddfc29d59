"""The agent: it measures on a device for a host elsewhere, over one pair of pipes, and needs Python 3.8 alone.

``boot`` puts the agent's one file in place and starts it; ``session`` answers a host; ``supervisor`` runs a job, which
goes on without the host; ``worker`` is the process that measures, and may crash or hang; ``place`` is the folder that
all of them share. Nothing is pickled, and no port is opened.
"""
