"""One module per verb: functions that join the rooms below them."""
