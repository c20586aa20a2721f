"""The pure part of actions: the state machine, plans, kinds of action, receipts."""
