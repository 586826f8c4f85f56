-- breaking: servers of the release before read these by their former names.
--
-- One word an idea, before anybody depends on them. The label under which a key's usage is summed until upkeep has
-- reattributed it is the one that it is attributed to; and a lease is about to be something of rate limits.
ALTER TABLE key RENAME COLUMN folded_environment TO attributed_environment;
ALTER TABLE lease RENAME TO job_lease;
ALTER INDEX lease_pkey RENAME TO job_lease_pkey;
UPDATE job_lease SET name = 'reattribute' WHERE name = 'fold';
