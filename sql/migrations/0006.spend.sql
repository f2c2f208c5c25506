-- What calls cost, in millionths of a cent (tokens times cents a million tokens), and of which month a report is.
-- A release that knows neither writes zero and no month: its reports count until the next one says.

alter table usage add column millionths bigint not null default 0;
alter table liveness add column monthly_spend_of date;

-- What a workspace has spent in this month (UTC), and which that is.
create function spend_of(workspace uuid)
returns table (spend_month text, monthly_spend bigint, priced_spend bigint) language sql stable as $$
    with month as (select date_trunc('month', now() at time zone 'utc')::date as first)
    select to_char(month.first, 'YYYY-MM'),
           (select case when l.monthly_spend_of < month.first then 0 else l.monthly_spend end
              from liveness l where l.workspace_id = workspace),
           (select least(coalesce(sum(u.millionths), 0), 9e18)::bigint
              from usage u where u.workspace_id = workspace and u.day >= month.first)
      from month
$$;
