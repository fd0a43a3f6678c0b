"""The workbench of template authors: `dispatcher templates serve`. It needs a folder of templates and nothing else."""

from dispatcher.web.workbench.app import create_workbench
from dispatcher.web.workbench.folder import WorkbenchFolder

__all__ = ["WorkbenchFolder", "create_workbench"]
