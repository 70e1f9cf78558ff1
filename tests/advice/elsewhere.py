"""The tests that follow advice where that takes more than a case."""

from __future__ import annotations

from typing import Final

FOLLOWED: Final = {
    "mongodb/test_mongodb_errors.py::test_an_async_client_serves_its_loop_itself_and_threads_there": [
        "would wait for itself: await the method with a leading a"
    ],
    "mongodb/test_mongodb_errors.py::test_an_async_client_whose_loop_has_ended_is_told": [
        "make a new client in each loop, or use one of plain calls"
    ],
    "mongodb/test_mongodb_errors.py::test_a_client_of_the_programs_stays_open_and_one_that_it_closed_is_told": [
        "was closed: open a new one.",
        "was closed: make a new one, and a new store",
    ],
    "mongodb/test_mongodb_errors.py::test_being_overtaken_all_the_time_is_told": [
        "again and again meanwhile: nothing was done"
    ],
    "mongodb/test_mongodb_errors.py::test_a_store_is_not_made_where_nobody_answers": [
        "check the host, the port and tls= of its URL"
    ],
    "mongodb/test_mongodb_errors.py::test_an_update_of_what_is_too_large_for_one_request_is_told": [
        "split the value over several keys, or write it without update()"
    ],
    "mongodb/test_mongodb_errors.py::test_what_takes_too_long_is_told": [
        "was not answered in time: try again",
    ],
    "mongodb/test_mongodb_errors.py::test_a_server_that_goes_away_is_told_and_served_again_when_it_is_back": [
        "was lost (\0): try again"
    ],
    "mongodb/test_mongodb_errors.py::test_what_a_server_refuses_is_named": [
        "check user, password and authSource= of its URL",
        "grant it, or use another user",
    ],
    "mongodb/test_mongodb_errors.py::test_a_url_of_another_form_is_told_and_not_shown": [
        "pymongo does not take the URL"
    ],
    "cli/test_importing.py::test_a_database_that_is_not_there_is_told_and_not_made": [
        "give the database of LangGraph's store"
    ],
    "sql/test_sql_engines.py::test_an_engine_that_stays_in_autocommit_is_refused": [
        "transaction then: give one without"
    ],
    "sql/test_sql_bad_input.py::test_a_url_that_names_no_database_is_told_what_to_write": [
        "with @ : / ? # % [ ] in user and password"
    ],
    "unit/test_libraries_missing.py::test_a_library_that_is_missing_is_told": [
        "which is not installed: pip install 'langchain-kv[\0]'"
    ],
    "unit/test_libraries_missing.py::test_a_driver_that_is_missing_is_told": [
        "needs a driver: pip install",
        "Install it with pip",
    ],
    "cli/test_explore.py::test_the_browser_is_given_the_token_by_a_file_that_only_its_owner_reads": [
        "There is no target to look at: give its URL, or set LCKV_URL."
    ],
    "unit/test_document_forms.py::test_only_documents_are_kept": ["keep JSON values in KVStore, bytes in"],
    "unit/test_document_forms.py::test_a_subclass_with_fields_of_its_own_is_refused": ["put them into its metadata"],
    "unit/test_refusals.py::test_a_document_in_a_store_of_json_or_bytes_is_told_of_the_docstore": [
        "keep Documents in DocumentStore"
    ],
    "contract/test_parent_documents.py::test_parents_that_expire_are_refused": [
        "Make the DocumentStore without ttl_s, and delete parents here in time"
    ],
    "contract/test_parent_documents.py::test_only_a_document_store_notes_children": ["give DocumentStore(...)"],
    "contract/test_parent_documents.py::test_parents_of_others_are_refused_before_anything_is_done": [
        "Remove their children from the vector store by"
    ],
    "contract/test_parent_documents.py::test_a_vector_store_that_says_it_does_not_delete_is_believed": [
        "repeat the call once it can"
    ],
    "contract/test_llm_cache.py::test_rows_in_another_order_are_refused": ["add ORDER BY prompt, llm, idx"],
    "unit/test_engine_backend.py::test_what_a_data_api_cannot_do_in_one_step_another_target_can": [
        "in one step with looking at it: use a target that can"
    ],
    "contract/test_collection_forms.py::test_being_overtaken_all_the_time_is_told": [
        "try again, or have fewer of them change one key"
    ],
    "unit/test_embedding_cache.py::test_without_numpy_an_array_is_refused_and_lists_are_not": [
        "embed_documents_array needs numpy: pip install 'langchain-kv[vector]', or use embed_documents"
    ],
    "unit/test_embedding_cache.py::test_a_model_with_other_settings_under_the_same_name_is_told": [
        "give a model with other settings another name, or dimensions"
    ],
    "unit/test_encryption.py::test_without_its_library_the_error_names_the_extra": [
        "pip install 'langchain-kv[encryption]'"
    ],
    "faults/test_proxies.py::test_the_files_of_trusted_authorities_are_read_when_a_store_is_made": [
        "No secure connection to"
    ],
    "unit/test_dataapi_retry.py::test_part_that_gets_no_turn_before_the_deadline_is_not_sent": [
        "raise deadline_s, or use smaller batches"
    ],
    "unit/test_dataapi_backend.py::test_scan_that_is_answered_the_same_state_for_ever_ends": [
        "twice: the scan would never end. Try again"
    ],
    "cli/test_process.py::test_a_server_that_may_not_start_says_why": [
        "lckv serve keeps values itself: give",
        "needs a token, as others can reach it: give",
    ],
    "cli/test_process.py::test_a_user_and_a_password_open_the_door_beside_a_token": [
        "--user needs a name and its password: give",
        "--password needs the user that it is of: give",
    ],
    "unit/test_server_doors.py::test_white_space_around_the_servers_token_is_taken_off": [
        "has a line end or a control character in it: give one line of text"
    ],
    "unit/test_loop_thread.py::test_cancelled_operation_is_an_error_of_ours": [
        "The operation was cancelled on langchain-kv's event loop: repeat it"
    ],
    "unit/test_loop_thread.py::test_call_on_the_loop_thread_is_refused": ["use the async method there"],
    "unit/test_loop_thread.py::test_forked_child_starts_a_loop_of_its_own_and_the_parents_goes_on": [
        "start a new one in the child"
    ],
    "unit/test_loop_thread.py::test_exit_handler_of_the_user_may_still_call": ["finish before it ends"],
    "unit/test_work_queue.py::test_close_ends_what_is_queued_then_refuses": ["the store was closed; open a new one"],
    "unit/test_loop_thread.py::test_interrupt_inside_a_coroutine_is_an_error_of_ours_and_the_loop_goes_on": [
        "The operation was interrupted on langchain-kv's event loop: repeat it"
    ],
    "unit/test_work_queue.py::test_an_interrupt_in_a_lane_ends_no_event_loop_but_is_told": [
        "The thread that ran this call was interrupted: repeat the call"
    ],
    "unit/test_setup.py::test_an_interrupt_in_the_set_up_is_told_as_such_and_it_is_tried_again": [
        "The set-up of the collection was interrupted: repeat the call"
    ],
    "unit/test_work_queue.py::test_a_lane_whose_thread_cannot_be_started_says_so_and_starts_it_later": [
        "end some of its threads, or raise the limit (ulimit -u)"
    ],
    "unit/test_testing_fixture.py::test_a_client_that_gives_up_is_not_waited_for": [
        "end what the test started before the test ends"
    ],
    "meta/test_wheel.py::test_it_works_with_the_dependencies_it_declares": [
        "pip install 'langchain-kv[testing]'",
        "pip install 'langchain-kv[cli]'",
    ],
    "faults/test_greenlets.py::test_a_cluster_is_refused_to_greenlets_and_a_server_is_not": [
        "run lckv serve --db with this URL in a process of its own, and give its http: URL"
    ],
    "unit/test_cluster_urls.py::test_a_driver_that_is_missing_or_broken_is_told": [
        "pip install 'langchain-kv[cassandra]'",
        "Install a binary wheel",
    ],
    "unit/test_bundle_urls.py::test_a_file_that_is_no_bundle_is_told": ["ownload it again from"],
    "unit/test_places_of_others.py::test_a_store_on_a_place_that_cannot_be_pickled_says_so": [
        "make the store anew where it is wanted"
    ],
    "unit/test_places_of_others.py::test_two_packages_with_one_scheme_are_an_error_that_names_both": [
        "uninstall all of them but one"
    ],
    "cluster/test_cassandra_byte_store.py::test_json_is_refused_with_the_right_way": [
        "keep JSON by the URL of the cluster"
    ],
    "cluster/test_cassandra_byte_store.py::test_6_5_values_expire_by_the_clusters_own_time": [
        "give a shorter ttl_s, or none"
    ],
    "cluster/test_cassandra_byte_store.py::test_arguments_that_are_missing_or_too_many_are_told": [
        "as they are in the cluster.",
        "needs to know the cluster: give session=",
        "session= and url= are two ways",
    ],
    "cluster/test_cassandra_tls.py::test_files_that_are_no_certificates_are_told": [
        "check ca_file=, cert_file= and key_file="
    ],
    "cluster/test_cassandra_rows.py::test_a_store_does_not_open_them": [
        "give the URL of the cluster's Data API (https:...)"
    ],
    "sql/test_sql_advice.py::test_a_database_of_its_own_takes_what_one_store_refuses": [
        "make it with setup_mode=SetupMode.SYNC, or create_schema() of SQLStore",
        "leave ttl_s out, or use KVByteStore on this database",
        "got None: delete the key instead",
        "was closed: open a new one.",
    ],
    "sql/test_sql_advice.py::test_the_path_of_a_file_is_what_the_url_wants": ["Write sqlite+sqlalchemy:PATH"],
    "sql/test_sql_bad_input.py::test_a_wrong_password_is_told_without_showing_it": ["Check user and password"],
    "sql/test_sql_bad_input.py::test_a_host_that_does_not_answer_is_named": ["Check that the server runs, and host"],
    "sql/test_sql_bad_input.py::test_a_table_of_another_shape_is_refused_and_left_alone": ["Use another database, or"],
    "sql/test_sql_bad_input.py::test_a_value_that_a_packet_cannot_take_is_refused_by_name": [
        "max_allowed_packet: split it over several keys"
    ],
    "sql/test_sql_advice.py::test_a_url_of_another_form_is_told_the_right_one": [
        "with the name of a database",
        "is no URL that SQLAlchemy takes",
    ],
    "sql/test_sql_advice.py::test_another_kind_of_database_is_refused": ["not in \0: use one of them"],
    "sql/test_sql_advice.py::test_a_call_that_others_win_against_can_be_repeated": [
        "others write all the time: repeat the call later"
    ],
    "sql/test_sql_between.py::test_a_namespace_that_the_column_would_cut_is_refused": ["choose a shorter one"],
    "sql/test_sql_between.py::test_a_lock_that_stays_is_waited_for_twice_and_told": ["End it, and repeat the call"],
    "sql/test_sql_engines.py::test_an_engine_in_autocommit_loses_no_update": ["give the one that it was derived from"],
    "sql/test_sql_engines.py::test_a_pool_without_a_free_connection_is_told": ["or make fewer calls at once"],
    "sql/test_sql_engines.py::test_a_call_on_a_loop_that_is_closed_meanwhile_is_told": ["end the calls first, or use"],
    "sql/test_sql_engines.py::test_a_path_that_a_url_cannot_say_is_refused_and_taken_by_an_engine": [
        "use another, or give SQLPlace(create_engine("
    ],
    "sql/test_sql_store.py::test_nul_in_a_key_is_refused_by_name_where_the_column_cannot_take_it": [
        "leave it out, or use KVByteStore, whose table takes it"
    ],
    "contract/test_redis_store.py::test_its_arguments_are_refused_with_the_errors_of_the_archived_one": [
        "give a Redis or RedisCluster of redis or of redis.asyncio"
    ],
    "contract/test_redis_store.py::test_5_a_client_that_makes_text_of_bytes_is_refused_by_name": [
        "bytes would be lost. Make it without"
    ],
    "contract/test_redis_store.py::test_a_server_that_does_not_answer_in_time_is_told": [
        "repeat the call, or give it more time"
    ],
    "contract/test_upstash_store.py::test_its_arguments_are_refused_with_the_errors_of_the_archived_one": [
        "Expected Upstash Redis client, got",
        "as its console shows it, or is",
        "the token is missing. Give token=",
    ],
    "contract/test_upstash_store.py::test_a_client_that_does_not_tell_where_it_goes_is_refused": [
        "give url= and token="
    ],
    "contract/test_upstash_store.py::test_5_empty_batches_send_nothing_and_none_is_refused_by_name": [
        "keep bytes in UpstashRedisByteStore, JSON in KVStore"
    ],
    "contract/test_upstash_store.py::test_a_value_of_another_kind_is_an_error_that_names_the_key_and_the_class": [
        "which is no character: leave it out"
    ],
    "contract/test_upstash_store.py::test_a_key_that_a_url_cannot_hold_is_told_and_the_rest_is_kept": [
        "where the empty key, '.' and '..' mean something"
    ],
    "contract/test_upstash_store.py::test_a_value_over_the_limit_is_told_by_its_key_and_the_rest_is_kept": [
        "use smaller values, or another plan of Upstash"
    ],
    "faults/test_upstash_faults.py::test_what_a_gateway_finds_too_large_is_told": ["use a smaller one"],
    "faults/test_upstash_faults.py::test_a_fault_that_lasts_is_told": [
        "is not one of Upstash's REST interface, or is cut: check the endpoint"
    ],
    "faults/test_upstash_faults.py::test_a_wrong_token_is_told_and_never_shown": ["Upstash refused the token"],
}
"""A test, and pieces of the messages."""

ELSEWHERE: Final = {fragment: name for name, fragments in FOLLOWED.items() for fragment in fragments}
