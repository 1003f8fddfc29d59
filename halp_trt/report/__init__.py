"""Turns any value into text or an HTML page; units are converted here and nowhere else."""

from halp_trt.report.text import describe as describe
from halp_trt.report.text import describe_log as describe_log
from halp_trt.report.text import with_verdict as with_verdict
