"""The one truth: tables, transactions and wake-ups. No rule of Higgins' lives here, only how rows are kept."""
