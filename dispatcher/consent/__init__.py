"""Use cases about people's choices: record, acknowledge, export, erase; links that act for one person."""
