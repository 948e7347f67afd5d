"""Make a campaign's messages from a list of contacts: a CSV file, a template, and numbers as people write them."""

from smsretry.contacts.messages import Bad, Contacts, Fault, Item, Ready, Repeated
from smsretry.contacts.occurrences import Occurrences
from smsretry.contacts.phone import Numbers, UnreadableNumber
from smsretry.contacts.survey import Survey, surveyed
from smsretry.contacts.table import Row, Table
from smsretry.contacts.template import Template

__all__ = [
    "Bad",
    "Contacts",
    "Fault",
    "Item",
    "Numbers",
    "Occurrences",
    "Ready",
    "Repeated",
    "Row",
    "Survey",
    "Table",
    "Template",
    "UnreadableNumber",
    "surveyed",
]
