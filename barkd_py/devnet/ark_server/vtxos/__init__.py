"""What users ask about single VTXOs: boards, out-of-round payments, registering, looking up, mailboxes."""
