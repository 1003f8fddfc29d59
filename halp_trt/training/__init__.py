"""How a network learns: the step, its schedule and updates, one loop, and the processes that share the work.

What is learnt comes in as a function, the loss of a task, and as batches; this room knows neither tasks nor files.
"""
