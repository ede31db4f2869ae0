"""The report of a dataset: everything that lies in nnU-Net's folders, on one self-contained HTML page."""

from .gather import ReportSettings
from .render import write_report

__all__ = ["ReportSettings", "write_report"]
