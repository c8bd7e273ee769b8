"""Grafana's dashboards and alert rules as code; `make docs` writes the files that the role deploys.

Plain mappings, not grafana-foundation-sdk: its releases on PyPI are for Grafana 10.1 to 11.6, and these files have to
work with 9.4 and with 13. What both versions read is in `panels.py`.
"""
