"""Training: the step, its schedule and updates, one loop, and the processes that share the work.

Loss and batches come in as arguments; this room knows neither tasks nor files.
"""
