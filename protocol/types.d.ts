// The types of the protocol of clawpal-sidecar, version 1.0: made by `make protocol`, so don't change them here.
// An object may have more fields than stand here, and a text more values where "string & {}" stands beside them.

/** All sessions of one agent: the eager answer. */
export interface AgentSessionAnalysis {
  totalFiles: number;
  totalSizeBytes: number;
  emptyCount: number;
  lowValueCount: number;
  valuableCount: number;
  agent: string;
  sessions: SessionAnalysis[];
}

/** A snapshot; `sizeBytes` are of what its files hold, `failures` the first of `failedItems`. */
export interface BackupInfo {
  name: string;
  path: string;
  createdAt: string;
  sizeBytes: number;
  status: "complete" | "incomplete" | "unverified";
  failedItems: number;
  failures: Failure[];
}

/** The `data` of an error: choose by `kind`; what some kinds have beside it is absent in the others. */
export interface ErrorData {
  kind: ErrorKind;
  retryable: boolean;
  streamInstead?: string | null;
  deleted?: number;
  refused?: RefusedSession[];
  host?: string;
  port?: number;
  algorithm?: string;
  fingerprint?: string;
  path?: string;
  failedItems?: number;
  failures?: Failure[];
  users?: string[];
}

export type ErrorKind =
  | "parse_error"
  | "invalid_request"
  | "method_not_found"
  | "invalid_params"
  | "internal"
  | "home_unknown"
  | "source_unreadable"
  | "session_not_found"
  | "sessions_refused"
  | "broken_database"
  | "broken_compression"
  | "host_not_found"
  | "host_key_unknown"
  | "host_key_changed"
  | "passphrase_needed"
  | "login_refused"
  | "host_unreachable"
  | "connection_lost"
  | "channel_refused"
  | "timed_out"
  | "remote_failed"
  | "backup_not_found"
  | "backup_damaged"
  | "backup_unverified"
  | "no_space"
  | "target_in_use"
  | "target_not_writable"
  | "reply_too_large"
  | "too_busy"
  | "cancelled"
  | (string & {});

/** The payload of `sessions:error`. */
export interface ErrorNotice {
  handleId: string;
  seq: number;
  error: string;
  kind: ErrorKind;
}

/** The `error` of a reply; `message` is a sentence for people. */
export interface ErrorObject {
  code: number;
  message: string;
  data: ErrorData;
}

/** One item that could not be read, as the wire shows it. */
export interface Failure {
  path: string;
  error: string;
}

/** A host as the app sends it, with fields that are not known here. */
export interface GivenHost {
  id?: string;
  label: string;
  host: string;
  port: number;
  username: string;
  authMethod: "key" | "ssh_config" | "password";
  keyPath?: string | null;
  password?: string | null;
  passphrase?: string | null;
  [others: string]: unknown;
}

/** The payload of `backup:done` and `verify:done`. */
export interface InfoDone {
  handleId: string;
  seq: number;
  info: BackupInfo;
}

/** The memory of the process in bytes, now and at its peak; null where the system can't tell. */
export interface MemoryUse {
  residentBytes: number | null;
  peakBytes: number | null;
}

/** The payload of each `…:cancelled`: nothing but the handle. */
export interface Notice {
  handleId: string;
  seq: number;
}

/** The payload of `session-preview:done`: what was sent up to the end, whatever the end was. */
export interface PreviewDone {
  handleId: string;
  seq: number;
  totalMessages: number;
  cancelled: boolean;
  skippedLines: number;
}

/** A message of a session; `content` is its text, without images and tool calls. */
export interface PreviewMessage {
  role: string;
  content: string;
}

/** The payload of `session-preview:page`: `offset` messages were on the pages before. */
export interface PreviewPage {
  handleId: string;
  seq: number;
  page: number;
  offset: number;
  messages: PreviewMessage[];
  totalMessages: number;
}

/** A session that was not deleted, and why. */
export interface RefusedSession {
  sessionId: string;
  agent: string;
  reason: string;
}

/** The payload of `restore:done`; `previous` is the snapshot of what was there before, if anything was. */
export interface RestoreDone {
  handleId: string;
  seq: number;
  info: BackupInfo;
  previous: BackupInfo | null;
  message: string;
}

/** One session as the wire shows it; `lastActivity` is as OpenClaw wrote it, `ageDays` never negative. */
export interface SessionAnalysis {
  agent: string;
  sessionId: string;
  filePath: string;
  sizeBytes: number;
  messageCount: number;
  userMessageCount: number;
  assistantMessageCount: number;
  lastActivity: string | null;
  ageDays: number;
  totalTokens: number;
  model: string | null;
  category: "empty" | "low_value" | "valuable";
  kind: "archive" | "sessions";
  store: "jsonl" | "sqlite" | (string & {});
  archivedAs: "deleted" | "imported" | "reset" | (string & {}) | null;
  headerId: string | null;
  skippedLines: number;
}

/** A row of `list_session_files`; `relativePath` is below the OpenClaw directory, with `/`. */
export interface SessionFile {
  path: string;
  relativePath: string;
  agent: string;
  kind: "archive" | "sessions";
  sizeBytes: number;
}

/** The payload of `session-files:chunk`; the totals are of all that was sent so far, this chunk included. */
export interface SessionFilesChunk {
  handleId: string;
  seq: number;
  files: SessionFile[];
  totalFiles: number;
  totalSizeBytes: number;
}

/** The payload of `session-files:done`: what was sent up to the end, whatever the end was. */
export interface SessionFilesDone {
  handleId: string;
  seq: number;
  totalFiles: number;
  totalSizeBytes: number;
  cancelled: boolean;
  failedItems: number;
  failures: Failure[];
}

/** The payload of `sessions:chunk`: some sessions of one agent and its counters so far. */
export interface SessionsChunk {
  handleId: string;
  seq: number;
  totalFiles: number;
  totalSizeBytes: number;
  emptyCount: number;
  lowValueCount: number;
  valuableCount: number;
  agent: string;
  sessions: SessionAnalysis[];
  agentFilesTotal: number;
  done: boolean;
}

/** The payload of `sessions:done`: what was sent up to the end, whatever the end was. */
export interface SessionsDone {
  handleId: string;
  seq: number;
  totalAgents: number;
  totalSessions: number;
  cancelled: boolean;
  failedItems: number;
  failures: Failure[];
}

/** The process as it is now; `uptimeMs` counts from its start, in milliseconds. */
export interface SidecarInfo {
  name: string;
  version: string;
  protocolVersion: string;
  pid: number;
  uptimeMs: number;
  memory: MemoryUse;
  openHandles: number;
}

/** A host of the configuration; what it doesn't say is absent. `identityFile` is the first, `~` expanded. */
export interface SshConfigHostSuggestion {
  hostAlias: string;
  hostName?: string;
  user?: string;
  port?: number;
  identityFile?: string;
}

/** A host and how to log in there. `host` is a name or an address, or an alias of `~/.ssh/config`. */
export interface SshHost {
  id: string;
  label: string;
  host: string;
  port: number;
  username: string;
  authMethod: "key" | "password" | "ssh_config";
  keyPath?: string;
  password?: string;
  passphrase?: string;
}

/** What went to a host and came from it; rates over the last seconds, totals since the process started. */
export interface SshTransferStats {
  hostId: string;
  uploadBytesPerSec: number;
  downloadBytesPerSec: number;
  totalUploadBytes: number;
  totalDownloadBytes: number;
  updatedAtMs: number;
}

/** The payload of `backup:error`, `restore:error` and `verify:error`, with what the error has of details. */
export interface WorkError {
  handleId: string;
  seq: number;
  error: string;
  kind: ErrorKind;
  failedItems?: number;
  failures?: Failure[];
  users?: string[];
}

/** The payload of `backup:progress`, `restore:progress` and `verify:progress`. */
export interface WorkProgress {
  handleId: string;
  seq: number;
  phase: "snapshot" | "config" | "agents" | "memory" | "done" | (string & {});
  filesCopied: number;
  bytesCopied: number;
  filesTotal: number;
  bytesTotal: number;
  currentPath: string | null;
}

/** What each method takes, by name, and answers. */
export interface Methods {
  /** Answers "pong". */
  "ping": { params: Record<string, never>; result: "pong" };
  /** This document: the protocol, as OpenRPC describes one. */
  "rpc.discover": { params: Record<string, never>; result: Record<string, unknown> };
  /** Versions, process id, memory, open streams. */
  "get_sidecar_info": { params: Record<string, never>; result: SidecarInfo };
  /** Cancels what runs, lets the terminals out, exits with 0. */
  "shutdown": { params: Record<string, never>; result: true };
  /** Stops a running stream of any family. */
  "cancel_stream": { params: { handleId: string }; result: boolean };
  /** Makes <path>/.openclaw the OpenClaw directory. */
  "set_active_openclaw_home": { params: { path?: string | null }; result: true };
  /** Chooses the ClawPal directory. */
  "set_active_clawpal_data_dir": { params: { path?: string | null }; result: true };
  /** Analyses every session, in one answer. */
  "analyze_sessions": { params: Record<string, never>; result: AgentSessionAnalysis[] };
  /** Analyses every session, in batches. */
  "analyze_sessions_stream": { params: { batchSize?: number | null }; result: string };
  /** Every file in the session folders, in one answer. */
  "list_session_files": { params: Record<string, never>; result: SessionFile[] };
  /** The files, in batches. */
  "list_session_files_stream": { params: { batchSize?: number | null }; result: string };
  /** The messages of a session, in one answer. */
  "preview_session": { params: { agentId: string; sessionId: string }; result: PreviewMessage[] };
  /** The messages, in pages. */
  "preview_session_stream": { params: { agentId: string; sessionId: string; pageSize?: number | null }; result: string };
  /** Deletes sessions of one agent, by their ids. */
  "delete_sessions_by_ids": { params: { agentId: string; sessionIds: string[] }; result: number };
  /** Deletes the sessions of all agents that are files. */
  "clear_all_sessions": { params: Record<string, never>; result: number };
  /** On a host: analyses every session, in one answer. */
  "remote_analyze_sessions": { params: { hostId: string }; result: AgentSessionAnalysis[] };
  /** On a host: analyses every session, in batches. */
  "remote_analyze_sessions_stream": { params: { hostId: string; batchSize?: number | null }; result: string };
  /** On a host: every file in the session folders, in one answer. */
  "remote_list_session_files": { params: { hostId: string }; result: SessionFile[] };
  /** On a host: the files, in batches. */
  "remote_list_session_files_stream": { params: { hostId: string; batchSize?: number | null }; result: string };
  /** On a host: the messages of a session, in one answer. */
  "remote_preview_session": { params: { hostId: string; agentId: string; sessionId: string }; result: PreviewMessage[] };
  /** On a host: the messages, in pages. */
  "remote_preview_session_stream": { params: { hostId: string; agentId: string; sessionId: string; pageSize?: number | null }; result: string };
  /** On a host: deletes sessions of one agent, by their ids. */
  "remote_delete_sessions_by_ids": { params: { hostId: string; agentId: string; sessionIds: string[] }; result: number };
  /** On a host: deletes the sessions of all agents that are files. */
  "remote_clear_all_sessions": { params: { hostId: string }; result: number };
  /** Makes a backup, in one answer. */
  "backup_before_upgrade": { params: { includeSessions?: boolean | null; share?: boolean | null }; result: BackupInfo };
  /** Makes a backup, with progress. */
  "backup_before_upgrade_stream": { params: { includeSessions?: boolean | null; share?: boolean | null }; result: string };
  /** The backups that there are. */
  "list_backups": { params: Record<string, never>; result: BackupInfo[] };
  /** Restores a backup, in one answer. */
  "restore_from_backup": { params: { backupName: string; force?: boolean | null }; result: string };
  /** Restores, with progress. */
  "restore_from_backup_stream": { params: { backupName: string; force?: boolean | null }; result: string };
  /** Checks a backup, with progress. */
  "verify_backup_stream": { params: { backupName: string }; result: string };
  /** Deletes a backup. */
  "delete_backup": { params: { backupName: string }; result: boolean };
  /** On a host: makes a backup, in one answer. */
  "remote_backup_before_upgrade": { params: { hostId: string; includeSessions?: boolean | null; share?: boolean | null }; result: BackupInfo };
  /** On a host: makes a backup, with progress. */
  "remote_backup_before_upgrade_stream": { params: { hostId: string; includeSessions?: boolean | null; share?: boolean | null }; result: string };
  /** On a host: the backups that there are. */
  "remote_list_backups": { params: { hostId: string }; result: BackupInfo[] };
  /** On a host: restores a backup, in one answer. */
  "remote_restore_from_backup": { params: { hostId: string; backupName: string; force?: boolean | null }; result: string };
  /** On a host: restores, with progress. */
  "remote_restore_from_backup_stream": { params: { hostId: string; backupName: string; force?: boolean | null }; result: string };
  /** On a host: checks a backup, with progress. */
  "remote_verify_backup_stream": { params: { hostId: string; backupName: string }; result: string };
  /** On a host: deletes a backup. */
  "remote_delete_backup": { params: { hostId: string; backupName: string }; result: boolean };
  /** The hosts over SSH that the app knows. */
  "list_ssh_hosts": { params: Record<string, never>; result: SshHost[] };
  /** Stores a host, or changes one. */
  "upsert_ssh_host": { params: { host: GivenHost }; result: SshHost };
  /** Forgets a host. */
  "delete_ssh_host": { params: { hostId: string }; result: boolean };
  /** The hosts that ~/.ssh/config names. */
  "list_ssh_config_hosts": { params: Record<string, never>; result: SshConfigHostSuggestion[] };
  /** Connects to a host. */
  "ssh_connect": { params: { hostId: string }; result: true };
  /** Connects to a host with the passphrase of an encrypted key. */
  "ssh_connect_with_passphrase": { params: { hostId: string; passphrase: string }; result: true };
  /** Closes the connection to a host. */
  "ssh_disconnect": { params: { hostId: string }; result: true };
  /** Whether there is a connection to a host. */
  "ssh_status": { params: { hostId: string }; result: "connected" | "disconnected" };
  /** How much went to a host and came. */
  "get_ssh_transfer_stats": { params: { hostId: string }; result: SshTransferStats };
  /** Trusts the key of a host. */
  "trust_ssh_host_key": { params: { hostId: string; fingerprint: string }; result: true };
}

/** The params of each notification, by its method. */
export interface Notifications {
  /** Some sessions of one agent, and its counters so far. */
  "sessions:chunk": SessionsChunk;
  /** Some files, and the totals so far. */
  "session-files:chunk": SessionFilesChunk;
  /** Some messages of a session, and how many there were so far. */
  "session-preview:page": PreviewPage;
  /** The stream was cancelled; its terminal follows. */
  "sessions:cancelled": Notice;
  /** The stream failed; its terminal follows. */
  "sessions:error": ErrorNotice;
  /** The end of an analysis, whatever it was. */
  "sessions:done": SessionsDone;
  /** The end of a list, whatever it was. */
  "session-files:done": SessionFilesDone;
  /** The end of a preview, whatever it was. */
  "session-preview:done": PreviewDone;
  /** How far a backup is. */
  "backup:progress": WorkProgress;
  /** The backup was cancelled; backup:error follows. */
  "backup:cancelled": Notice;
  /** There is no backup, and why. */
  "backup:error": WorkError;
  /** The backup is made. */
  "backup:done": InfoDone;
  /** How far a restore is. */
  "restore:progress": WorkProgress;
  /** The restore was cancelled; restore:error follows. */
  "restore:cancelled": Notice;
  /** Nothing was restored, and why. */
  "restore:error": WorkError;
  /** The backup is restored. */
  "restore:done": RestoreDone;
  /** How far a check is. */
  "verify:progress": WorkProgress;
  /** The check was cancelled; verify:error follows. */
  "verify:cancelled": Notice;
  /** What is wrong with the backup, or why it wasn't checked. */
  "verify:error": WorkError;
  /** The backup is exactly as it was made. */
  "verify:done": InfoDone;
}
