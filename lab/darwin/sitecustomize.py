"""Makes every Python of this container say that it runs on a Mac with Apple silicon; Ansible believes it."""

import os
import platform

REAL = os.uname()
DARWIN = os.uname_result(
    (
        "Darwin",
        REAL.nodename,
        "24.6.0",
        "Darwin Kernel Version 24.6.0: root:xnu-11417.140.69~1/RELEASE_ARM64_T8132",
        "arm64",
    )
)
os.uname = lambda: DARWIN
platform.uname = lambda: platform.uname_result(*DARWIN)
platform.system, platform.node = (lambda: DARWIN.sysname), (lambda: DARWIN.nodename)
platform.release, platform.version = (lambda: DARWIN.release), (lambda: DARWIN.version)
platform.machine, platform.processor = (lambda: DARWIN.machine), (lambda: "arm")
platform.mac_ver = lambda *_: ("15.6", ("", "", ""), "arm64")
