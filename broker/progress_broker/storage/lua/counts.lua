-- Adds up what several publishers count on one operation. `publish.lua` includes this file.

local PACE = '^(,"rate":[%dnul.eE+-]+,"eta_ms":[%dnul.eE+-]+)(.*)$'
local HEAD = '^{"current":([%dnul.eE+-]+),"total":([%dnul.eE+-]+),"percent":([%dnul.eE+-]+)(.*)$'

local function number(value) -- the shortest text that says it
  local short = string.format('%.15g', value)
  return tonumber(short) == value and short or string.format('%.17g', value)
end

-- Returns a progress with the sums of all who count, and their counts: 'current total by of', as in the reply; then what
-- they have added to stages. `known` is the progress before, if it is not stored yet.
local function add_up(data, known, counts, by, of, stage_counts)
  local current, total, percent, rest = string.match(data, HEAD)
  if not current then return data, counts, stage_counts end
  known = known or redis.call('HGET', KEYS[1], 'progress')
  local own, own_total, theirs, their_total = string.match(counts or '', '^(%S+) (%S+) (%S+) (%S+)$')
  local known_current, known_total, known_percent, known_rest = string.match(known or '', HEAD)
  if not own then
    own, own_total = known_current, known_total
    own, own_total, theirs, their_total = own or 'null', own_total or 'null', '0', '0'
  end
  local pace, more = string.match(rest, PACE)
  local staged
  if more == '}' and known_rest then -- it only counts: all else stays as it is
    local _, known_more = string.match(known_rest, PACE)
    percent, rest = percent == 'null' and known_percent or percent, pace .. (known_more or known_rest)
    if by then percent = known_percent end
  elseif known_rest or by then
    if by and percent == 'null' then percent = known_percent or percent end
    local added = read_added(stage_counts)
    rest, staged = join_rest(known_rest or '}', rest, by, added, number)
    stage_counts = write_added(added, number)
  end
  if by then
    theirs, their_total = number(tonumber(theirs) + tonumber(by)), number(tonumber(their_total) + tonumber(of))
  else
    own, own_total = current, total
  end
  local done, whole = math.max(0, (tonumber(own) or 0) + tonumber(theirs)), (tonumber(own_total) or 0) + their_total
  if whole > 0 then
    percent = number(math.floor(math.min(100, 100 * done / whole) * 100 + 1e-9) / 100)
  elseif staged then
    percent = staged
  end
  return '{"current":' .. (own == 'null' and theirs == '0' and own or number(done))
    .. ',"total":' .. (own_total == 'null' and their_total == '0' and own_total or number(whole))
    .. ',"percent":' .. percent .. rest, table.concat({ own, own_total, theirs, their_total }, ' '), stage_counts
end
