/** Metrics of what makes changes durable: commit batches and the store. */
import { counter, counts, type Definition, durations, gauge } from './definition.ts';

export const COMMITS: readonly Definition[] = [
  counter('atoll_commits_total', 'Commit batches in the store', ({ status }) => status.commits.count),
  durations(
    'atoll_commit_seconds',
    'Commits of a volume, from the cut of the batch until it is durable',
    ({ activity }) => activity.commits.times,
  ),
  counts('atoll_commit_pages', 'Map pages of a commit', ({ activity }) => activity.commits.pages),
  durations(
    'atoll_store_transaction_seconds',
    'Transactions of the store',
    ({ activity }) => activity.store.transactions,
  ),
  durations('atoll_store_sync_seconds', 'Writing and syncing the store’s log', ({ activity }) => activity.store.syncs),
  counts(
    'atoll_store_transaction_batches',
    'Commit batches of a transaction',
    ({ activity }) => activity.store.batches,
  ),
  gauge('atoll_store_bytes', 'The store and its log on disk', ({ activity }) => activity.home.storeBytes),
  gauge('atoll_store_log_bytes', 'The store’s log, as of the last commit', ({ status }) => status.commits.logBytes),
  gauge('atoll_home_free_bytes', 'Free in the file system of the home', ({ activity }) => activity.home.freeBytes),
];
