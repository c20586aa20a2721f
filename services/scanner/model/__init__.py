"""The pure part of the scanner: resources, the first-seen ledger, connections and scans."""
