"""The one place that names the version; nothing is imported here, so that packaging can read it."""

VERSION = "0.1.0"
