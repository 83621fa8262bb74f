"""Pure: what a chunk is, which chunks a query may see, how rankings become one."""
