/** @import {Clock} from './clock.js' */
/** @import {Operations} from './operations.js' */
/** @import {Page} from './page.js' */
/** @import {Watch} from './watch.js' */

/**
 * The shapes on the wire (docs/protocol.md) and what is made of them. Types only; there is nothing to run here.
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
 * @property {number|null} [rate] units a second
 * @property {number|null} [eta_ms]
 * @property {Stage[]|null} [stages]
 * @property {Pool|null} [workers]
 * @property {Record<string, unknown>|null} [metrics]
 * @property {boolean} [rolled_up] whether `percent` is what the children add up to
 *
 * @typedef {object} ChildrenSummary What an operation's children add up to.
 * @property {number} total
 * @property {number} done children that have ended, with any status
 * @property {number} failed
 * @property {number} cancelled
 * @property {number} running those at work
 * @property {number} percent 0 to 100, by their weights
 * @property {Operation[]} [operations] where a call lists them
 *
 * @typedef {object} Child A child in brief.
 * @property {string} id
 * @property {string} kind
 * @property {string|null} title
 * @property {Status} status
 * @property {number|null} percent
 * @property {number} weight
 * @property {string} [message]
 *
 * @typedef {object} Cancel That the worker was asked to stop.
 * @property {string|null} reason
 * @property {string|null} by who asked
 * @property {string} requested_at
 * @property {string} overdue_at a worker that still works at this time ignores it
 *
 * @typedef {object} Operation
 * @property {string} id
 * @property {string} kind
 * @property {string|null} title
 * @property {string|null} owner
 * @property {string[]} tags
 * @property {string|null} parent
 * @property {number} weight compared with the other children of its parent
 * @property {Status} status
 * @property {boolean} done
 * @property {number} attempt
 * @property {string|null} worker
 * @property {boolean} cancel_requested
 * @property {Cancel|null} cancel
 * @property {Progress|null} progress
 * @property {ChildrenSummary|null} children null for those without
 * @property {unknown} result
 * @property {{type?: string, message?: string}|null} error
 * @property {string} created_at
 * @property {string|null} started_at
 * @property {string} updated_at
 * @property {string|null} finished_at
 * @property {string|null} expires_at
 * @property {string|null} position
 * @property {number} events how many there have been: the `n` of the last one
 *
 * @typedef {object} Event An event, decoded.
 * @property {string} type
 * @property {string|null} position
 * @property {string} operation
 * @property {number} n
 * @property {number} time milliseconds since 1970
 * @property {any} data
 * @property {'trimmed'|'lost'|null} reset of a snapshot: why the events before it can't be had
 *
 * @typedef {object} History A page of an operation's events.
 * @property {string} operation
 * @property {any[]} events envelopes
 * @property {string} position where the next page begins
 * @property {boolean} done whether the `end` is among what was read
 * @property {'trimmed'|'lost'|null} reset why the events after the position that was asked for can't be had
 * @property {Operation|null} snapshot the operation, after a reset
 *
 * @typedef {object} LogLine
 * @property {number} n
 * @property {number} time milliseconds since 1970
 * @property {string} level debug, info, warning, error, critical; or `gap`, where lines are missing
 * @property {string} message
 * @property {string|null} stage
 *
 * @typedef {object} OperationState What a follower of one operation knows.
 * @property {Operation|null} operation
 * @property {number} n of the last event folded in; 0 before the first
 * @property {string|null} position where to resume; null before the first event
 * @property {boolean} ended whether the `end` was heard
 * @property {Child[]} children as they were last told: whole only where the stream tells of them. Oldest first
 * @property {LogLine[]} log the newest lines, oldest first
 * @property {number} logged lines there have been since the beginning, so that a view can append what is new
 * @property {number} logN `n` of the newest line
 *
 * @typedef {object} Wanted What a window has to be told of.
 * @property {string[]} ids operations, the most important first
 * @property {string|null} logOf the operation whose log lines are wanted, too
 * @property {string} who the principal that the window shows the operations to
 * @property {number} at when the server said so, in milliseconds since 1970
 *
 * @typedef {object} Told What a window is told by the hub; each part only where there is news of it.
 * @property {Connection} [connection] the stream's
 * @property {string[]} [followed] the operations that the stream follows
 * @property {Event[]} [events] of operations that the window wants; without positions
 * @property {string[]} [missing] operations of which the stream tells nothing more, and not why: they ended, or are gone
 * @property {string[]} [gone] operations that were deleted, or have expired
 * @property {boolean} [doubt] somebody else has signed in, perhaps: ask the server who
 *
 * @typedef {object} Connection
 * @property {'connecting'|'live'|'reconnecting'|'closed'|'ended'|'refused'} state
 * @property {string|null} code why, where there is something to say: `draining`, `silent`, `not-found`, …
 * @property {string|null} detail the same for people
 * @property {number} since milliseconds since 1970
 *
 * @typedef {object} WatchOptions
 * @property {Operation|null} [known] the operation, as seen in a list
 * @property {boolean} [fromStart] replay what is kept, for the log, instead of beginning with a snapshot
 * @property {number} [intervalMs] at most one `progress` in this time; 0 for all
 * @property {boolean} [children] be told of its children too, as they go on
 * @property {boolean} [pauseWhenHidden] hold no connection while nobody looks
 * @property {(watch: Watch) => void} [onChange] called when `state` or `connection` has changed
 * @property {Operations} [operations]
 * @property {typeof globalThis.EventSource} [EventSource]
 * @property {Clock} [clock]
 * @property {() => number} [random]
 * @property {Page} [page]
 */
export {};
