"""Stand-ins for the programs of macOS that Ansible and the roles call, for a Linux container that plays a Mac.

They follow Apple's manual pages as far as the collection uses them, and what other projects report of launchctl's exit
codes (plugins/module_utils/launchd.py names them). What they do not know they refuse with exit code 64 (EX_USAGE), so
that no test passes by a command that a real Mac would not understand. They prove how the roles act, not how macOS does.
"""
