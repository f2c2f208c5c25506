drop table changes, tokens, liveness, workspaces cascade;
drop function note_workspace_change, note_spend_change, note_token_change;
