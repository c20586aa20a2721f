"""What pricing decides: about prices, about bills, and about savings."""
