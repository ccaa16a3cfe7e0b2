"""Every error this product raises on purpose.

FlowError
├── SettingError          a setting's value is not allowed
├── SchemaError           a record shape is wrong, unknown or incompatible
├── DecodeError           bytes are not the record they claim to be
├── RegistryUnavailable   the schema registry does not answer
├── BrokerUnavailable     the broker does not answer
├── NamespaceError        a time line would be mixed with another one
├── StateError            stored state and log do not belong together
│   └── ConfigChanged     rules or settings changed since an unclean stop
├── FoldError             a fold broke its own contract
├── SourceError           a file or feed cannot be read
├── DownloadError         a component could not be fetched or is not what it should be
└── StackError            a part of the embedded stack cannot run
    └── PortTaken         somebody else listens where a part should
"""

from __future__ import annotations


class FlowError(Exception):
    """Base of all errors whose text is meant for the user."""


class SettingError(FlowError):
    """Raised at start: names the variable, its value and what is allowed."""


class SchemaError(FlowError):
    """Raised when a record shape is wrong, unknown, or would break its readers."""


class DecodeError(FlowError):
    """Raised for bytes that are not the record they claim to be."""


class RegistryUnavailable(FlowError):
    """Raised when the schema registry does not answer; callers wait, they never guess."""


class BrokerUnavailable(FlowError):
    """Raised when the broker does not answer."""


class NamespaceError(FlowError):
    """Raised before two time lines would share one namespace."""


class StateError(FlowError):
    """Raised when stored state and log do not belong together."""


class ConfigChanged(StateError):
    """Raised when rules or settings changed between an unclean stop and its redo."""


class FoldError(FlowError):
    """Raised when a fold or the log breaks the engine's contract."""


class SourceError(FlowError):
    """Raised when a file or feed cannot be read."""


class DownloadError(FlowError):
    """Raised when a component could not be fetched, or is not what it should be."""


class StackError(FlowError):
    """Raised when a part of the embedded stack cannot run."""


class PortTaken(StackError):
    """Raised when somebody else listens where a part of the stack should."""
