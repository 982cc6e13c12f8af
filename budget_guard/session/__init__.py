"""The handles that users and adapters hold: sessions and authorities."""
