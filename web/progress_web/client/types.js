/** @import {Clock} from './clock.js' */
/** @import {Operations} from './operations.js' */
/** @import {Page} from './page.js' */
/** @import {Watch} from './watch.js' */

/**
 * The types of the wire protocol (docs/protocol.md), and the types derived from them. This file contains no code.
 *
 * @typedef {'pending'|'running'|'stalled'|'cancelling'|'succeeded'|'failed'|'cancelled'} Status
 *
 * @typedef {object} Stage
 * @property {string} name
 * @property {string} [status] pending, running, succeeded, failed or skipped
 * @property {number|null} [current]
 * @property {number|null} [total]
 * @property {number|null} [percent]
 * @property {number|null} [in_flight]
 * @property {number|null} [duration_ms]
 *
 * @typedef {object} PoolWorker
 * @property {number|string} id
 * @property {string|null} [status]
 * @property {string|null} [item]
 * @property {number|null} [percent]
 *
 * @typedef {object} Pool
 * @property {number|null} [active]
 * @property {number|null} [max]
 * @property {number|null} [queue_depth]
 * @property {PoolWorker[]|null} [workers]
 *
 * @typedef {object} Progress
 * @property {number|null} [current]
 * @property {number|null} [total]
 * @property {string|null} [unit]
 * @property {number|null} [percent] 0 to 100
 * @property {string|null} [message]
 * @property {number|null} [rate] units per second
 * @property {number|null} [eta_ms]
 * @property {Stage[]|null} [stages]
 * @property {Pool|null} [workers]
 * @property {Record<string, unknown>|null} [metrics]
 * @property {boolean} [rolled_up] whether `percent` is the total of the children
 *
 * @typedef {object} ChildrenSummary The totals of an operation's children.
 * @property {number} total
 * @property {number} done children that have ended, with any status
 * @property {number} failed
 * @property {number} cancelled
 * @property {number} running children that are running
 * @property {number|null} percent 0 to 100, weighted; null while only a part of them is known
 * @property {boolean} [partial] whether children are missing, because a part of Redis is away
 * @property {Operation[]} [operations] only if the call lists them
 *
 * @typedef {object} Child A child in short form.
 * @property {string} id
 * @property {string} kind
 * @property {string|null} title
 * @property {Status} status
 * @property {number|null} percent
 * @property {number} weight
 * @property {string} [message]
 *
 * @typedef {object} Cancel A request to the worker to stop.
 * @property {string|null} reason
 * @property {string|null} by the user who requested it
 * @property {string} requested_at
 * @property {string} overdue_at a worker that is still running at this time ignores the cancel
 *
 * @typedef {object} Failure Why an operation did not succeed.
 * @property {string} [type]
 * @property {string} [message]
 * @property {string} [traceback] only with `PROGRESS_ERROR_TRACEBACKS`
 * @property {Failure} [cause] the same
 *
 * @typedef {object} Operation
 * @property {string} id
 * @property {string} kind
 * @property {string|null} title
 * @property {string|null} owner
 * @property {string[]} tags
 * @property {Record<string, unknown>} [metadata] what the application has noted; servers of earlier releases have none
 * @property {string|null} parent
 * @property {number} weight relative to the other children of its parent
 * @property {Status} status
 * @property {boolean} done
 * @property {number} attempt
 * @property {string|null} worker
 * @property {boolean} cancel_requested
 * @property {Cancel|null} cancel
 * @property {Progress|null} progress
 * @property {ChildrenSummary|null} children null without children
 * @property {unknown} result
 * @property {Failure|null} error
 * @property {string} created_at
 * @property {string|null} started_at
 * @property {string} updated_at
 * @property {string|null} finished_at
 * @property {number|null} [elapsed_ms] from the start to the end, or to what is known last
 * @property {string|null} expires_at
 * @property {string|null} position
 * @property {number} events the number of events so far, which is the `n` of the last one
 *
 * @typedef {object} Event A decoded event.
 * @property {string} type
 * @property {string|null} position
 * @property {string} operation
 * @property {number} n
 * @property {number} time milliseconds since 1970
 * @property {any} data
 * @property {'trimmed'|'lost'|null} reset of a snapshot: why the events before it are not available
 *
 * @typedef {object} History A page of an operation's events.
 * @property {string} operation
 * @property {any[]} events envelopes
 * @property {string} position where the next page begins
 * @property {boolean} done whether the `end` has been read
 * @property {'trimmed'|'lost'|null} reset why the events after the requested position are not available
 * @property {Operation|null} snapshot the operation, after a reset
 *
 * @typedef {object} LogLine
 * @property {number} n
 * @property {number} time milliseconds since 1970
 * @property {string} level debug, info, warning, error, critical; or `gap` where lines are missing
 * @property {string} message
 * @property {string|null} stage
 *
 * @typedef {object} OperationState The state that a client has of one operation.
 * @property {Operation|null} operation
 * @property {number} n of the last event folded in; 0 before the first
 * @property {string|null} position where to resume; null before the first event
 * @property {boolean} ended whether the `end` was received
 * @property {Child[]} children the known children, oldest first; complete only if the stream includes children
 * @property {LogLine[]} log the newest lines, oldest first
 * @property {number} logged number of lines since the beginning, so that a view can append only new ones
 * @property {number} logN `n` of the newest line
 *
 * @typedef {object} Wanted What a window wants to follow.
 * @property {string[]} ids operations, the most important first
 * @property {string|null} logOf the operation of which log lines are wanted too
 * @property {string} principal the user to whom the window shows the operations
 * @property {number} at when the server reported this principal, in milliseconds since 1970
 *
 * @typedef {object} HubMessage What the hub sends to a window. Each part is present only if it has changed.
 * @property {Connection} [connection] the state of the stream
 * @property {string[]} [followed] the operations that the stream follows
 * @property {Event[]} [events] of operations that the window wants; without positions
 * @property {string[]} [missing] operations of which no more events will come: they ended, or were deleted
 * @property {string[]} [gone] operations that were deleted or have expired
 * @property {boolean} [recheck] another user may have signed in; ask the server for the principal
 *
 * @typedef {object} Connection
 * @property {'connecting'|'live'|'reconnecting'|'closed'|'ended'|'rejected'} state
 * @property {string|null} code the reason, if there is one: `draining`, `silent`, `not-found`, …
 * @property {string|null} detail the reason as text for people
 * @property {number} since milliseconds since 1970
 *
 * @typedef {object} WatchOptions
 * @property {Operation|null} [known] the operation, as returned by a list
 * @property {boolean} [fromStart] replay all stored events, for the log, instead of starting with a snapshot
 * @property {number} [intervalMs] at most one `progress` event in this time; 0 for all
 * @property {boolean} [children] also follow the state of its children
 * @property {boolean} [pauseWhenHidden] close the connection while the page is hidden
 * @property {(watch: Watch) => void} [onChange] called when `state` or `connection` has changed
 * @property {Operations} [operations]
 * @property {typeof globalThis.EventSource} [EventSource]
 * @property {Clock} [clock]
 * @property {() => number} [random]
 * @property {Page} [page]
 */
export {};
