"""The verb ``bench``: engines against their baselines, in fresh processes.

``engines`` finds what is to be judged, ``worker`` is what a fresh process does and ``process`` starts it, ``gate`` asks
the rule after each look, ``baseline`` is a file of baselines with copies of their engines, ``keep`` says which engines
may become one.
"""
