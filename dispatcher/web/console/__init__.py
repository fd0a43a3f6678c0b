"""The console for operators: one module per group of pages. Ids only, no addresses or names; the only texts of people are inbound
messages that somebody must read.
"""
