"""Events as durable as answers: an outbox, its dispatcher, and channels to receivers.

`emit` writes an event in the transaction that makes it true. A dispatcher (`core.events.dispatcher`, a
process of its own) places committed events in an order and delivers them at least once, in this order for
each subscription. docs/decisions/0028-an-outbox.md has the reasons.
"""

from core.events.outbox import emit

__all__ = ["emit"]
