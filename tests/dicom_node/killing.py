"""The command, which ends itself by kill -9 at a chosen moment of its first film."""

import os
import signal
import sys


def begin(moment):
    from chexpert_hier.dicom_node import __main__ as command
    from chexpert_hier.dicom_node.ledger import Ledger
    from chexpert_hier.dicom_node.orthanc import Orthanc

    owner, method, calls = {"place": (Ledger, "advance", 1), "fetched": (Orthanc, "fetch", 1),
                            "picture": (Orthanc, "store", 1), "report": (Orthanc, "store", 1),
                            "settled": (Ledger, "settle", 1)}[moment]
    plain, done = getattr(owner, method), []

    def deadly(self, *arguments):
        answer = plain(self, *arguments)
        done.append(1)
        if len(done) == calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(owner, method, deadly)
    sys.exit(command.main(sys.argv[1:]))
